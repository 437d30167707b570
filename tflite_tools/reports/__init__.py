"""What a file holds and costs, as tables, JSON and a page.

Must not decide anything.
"""

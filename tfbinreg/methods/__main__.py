"""`python -m tfbinreg.methods` prints the table of methods."""

from tfbinreg.methods.table import method_table

print(method_table())

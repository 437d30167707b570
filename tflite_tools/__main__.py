"""`python -m tflite_tools`."""

from tflite_tools.commands.cli import run

if __name__ == "__main__":
    run()

"""`python -m tflite_tools`."""

from tflite_tools.cli import run

if __name__ == "__main__":
    run()

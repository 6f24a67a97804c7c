"""`python -m harness` is `harness`."""

from harness.cli.main import entry

if __name__ == "__main__":
    entry()

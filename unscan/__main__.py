"""The command `unscan`, also as `python -m unscan`."""

from unscan.cli import main

if __name__ == "__main__":
    main()

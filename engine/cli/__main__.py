"""``python -m engine.cli``: the same as the command `tilewright`."""

from engine.cli.main import main

if __name__ == "__main__":
    main()

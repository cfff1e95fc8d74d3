"""`python -m codefleet_cli`: the command line where no script is on the PATH."""

from codefleet_cli.main import main

if __name__ == "__main__":
    main()

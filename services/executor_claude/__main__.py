"""`python -m services.executor_claude`."""

from codefleet.service import run_service
from services.executor_claude.worker import main

if __name__ == "__main__":
    run_service("executor-claude", main)

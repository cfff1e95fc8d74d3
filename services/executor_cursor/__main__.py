"""`python -m services.executor_cursor`."""

from codefleet.service import run_service
from services.executor_cursor.worker import main

if __name__ == "__main__":
    run_service("executor-cursor", main)

"""The API service."""

from codefleet.service import run_service
from services.api.lifespan import main

if __name__ == "__main__":
    run_service("api", main)

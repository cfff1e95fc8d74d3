"""Example requests for the OpenAPI document; a test submits each of them."""

SUBMISSIONS = {
    "an agent's work on a prompt": {
        "work_directory": "/home/user/project",
        "prompt": "Find the performance problems of this code base and propose improvements",
        "priority": "high",
        "tags": ["performance", "analysis"],
    },
    "a command with arguments": {
        "name": "nightly review",
        "executor": "claude",
        "command": "review",
        "args": ["src", "--since", "yesterday"],
        "project_id": "backend",
        "priority": 5,
        "timeout": 3600,
        "max_retries": 3,
        "depends_on": [],
    },
    "a trial of the whole system, without an agent": {
        "type": "diagnostic",
        "parameters": {"sleep_seconds": 1, "output_lines": 10},
    },
}

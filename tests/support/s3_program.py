# mypy: disable-error-code="import-not-found,misc"
"""S3 server in memory, by moto: run in the environment of `tests/outside/moto.lock`, not that of the tests.

It prints a line of JSON with its address and the credentials that it accepts. The lines `stop` and `start` on
its standard input close and open its port; the objects stay. Every line is answered with the numbers of
requests so far. It ends with its input.
"""

from __future__ import annotations

import json
import sys
import threading
from collections import Counter
from typing import Any

import boto3
from moto import settings
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

REGION = "us-east-1"
POLICY = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}


COUNTS = Counter[str]()  # requests by their method


class Counting(WSGIRequestHandler):
    """Handler that counts requests and has no log."""

    def log_request(self, *_: Any) -> None:
        """Count a request."""
        COUNTS[self.command] += 1


def opened(port: int) -> BaseWSGIServer:
    """Return a server that answers on a port of the loopback, any free one for 0."""
    app = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", port, app, threaded=True, request_handler=Counting)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    return server


def prepared(address: str, bucket: str) -> dict[str, str]:
    """Make the bucket and a user, whose credentials are the only ones from now on; return them."""
    options = {"endpoint_url": address, "region_name": REGION}
    any_user = {"aws_access_key_id": "any", "aws_secret_access_key": "any"}
    boto3.client("s3", **options, **any_user).create_bucket(Bucket=bucket)
    users = boto3.client("iam", **options, **any_user)
    users.create_user(UserName="user")
    users.put_user_policy(UserName="user", PolicyName="all", PolicyDocument=json.dumps(POLICY))
    key = users.create_access_key(UserName="user")["AccessKey"]
    settings.INITIAL_NO_AUTH_ACTION_COUNT = 0.0
    return {"key": key["AccessKeyId"], "secret": key["SecretAccessKey"]}


def answer(line: str) -> None:
    """Write a line to the program that has started this one."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Serve until the input ends; the only argument is the name of the bucket."""
    server = opened(0)
    port = server.server_port
    address = f"http://127.0.0.1:{port}"
    answer(json.dumps({"address": address, **prepared(address, sys.argv[1])}))
    for line in sys.stdin:
        if line.strip() == "stop":
            server.shutdown()
            server.server_close()
        elif line.strip() == "start":
            server = opened(port)
        answer(json.dumps(COUNTS))


if __name__ == "__main__":
    main()

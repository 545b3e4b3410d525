"""Python runs this first where this folder is on its path, as it is for Ray's processes in tests.

Whoever is to fork executors, or to be one of Ray's workers, and would import for seconds, has one
forked in its place from a process that has imported all of it (`tests.cluster.zygotes`).
"""

import sys

__all__: list[str] = []

command = sys.orig_argv[1:]
if command[:2] == ["-m", "alto_exec.ray_cluster.node.zygote"] or (
    command and command[0].endswith("/ray/_private/workers/setup_worker.py")
):
    import json
    import os
    import socket

    status = 1
    try:
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(os.environ["ALTO_TESTS_WARM"])
            socket.send_fds(line, [b"0"], [0, 1, 2])
            line.sendall(json.dumps([command, os.getcwd(), dict(os.environ)]).encode())
            line.shutdown(socket.SHUT_WR)
            status = int(line.recv(1) != b"0")
    finally:
        os._exit(status)

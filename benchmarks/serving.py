"""A server under load against the same model in a bare loop: `python -m benchmarks.serving MODEL PICTURES`.

2,000 requests of one picture each from 32 clients on the loopback interface, which share the machine's cores with the
server; before and after them the same pictures, as bytes, through `Detector` in a loop in a process of its own. Prints
throughput, the median and the 99th percentile of a request's time, and what was refused. Exits with 1 if there was
another error, or fewer pictures a second than in the loop.
"""

from __future__ import annotations

import argparse
import http.client
import json
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

from tood.data.files import find_images

_LOOP = """
import json, sys, time
from tood import Detector
from tood.machine import settle_threads
settle_threads()
detector = Detector(sys.argv[1])
pictures = [open(path, "rb").read() for path in json.loads(sys.argv[2])]
for data in pictures[:8]:
    detector(data)
started = time.perf_counter()
for number in range(int(sys.argv[3])):
    detector(pictures[number % len(pictures)])
print(int(sys.argv[3]) / (time.perf_counter() - started))
"""


def bare_loop(model: Path, pictures: list[Path], count: int) -> float:
    """Pictures a second."""
    told = json.dumps([str(path) for path in pictures])
    command = [sys.executable, "-c", _LOOP, str(model), told, str(count)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def load(port: int, bodies: list[bytes], requests: int, clients: int) -> tuple[float, list[float], Counter[int]]:
    """Seconds for all, seconds of each answered request, and how often each status came."""
    left = iter(range(requests))
    lock = threading.Lock()
    times: list[float] = []
    codes: Counter[int] = Counter()

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        while True:
            with lock:
                number = next(left, None)
            if number is None:
                return
            started = time.perf_counter()
            connection.request("POST", "/detect", bodies[number % len(bodies)], {"Content-Type": "image/jpeg"})
            answer = connection.getresponse()
            answer.read()
            took = time.perf_counter() - started
            with lock:
                codes[answer.status] += 1
                if answer.status == 200:
                    times.append(took)
            if answer.status == 429:
                time.sleep(float(answer.headers["Retry-After"]))

    threads = [threading.Thread(target=client) for _ in range(clients)]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - started, times, codes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("pictures", type=Path)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--loop", type=int, default=400, help="pictures of each bare loop")
    parser.add_argument("--lanes", type=int)
    options = parser.parse_args()
    pictures = find_images(options.pictures).images[:64]
    bodies = [path.read_bytes() for path in pictures]
    before = bare_loop(options.model, pictures, options.loop)
    command = [sys.executable, "-m", "tood", "serve", str(options.model), "--port", "0"]
    command += ["--lanes", str(options.lanes)] if options.lanes else []
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        address = ""
        for line in server.stderr:
            event = json.loads(line)
            if event["event"] == "serving":
                address = event["address"]
                print(f"server: {event['lanes']} lanes of {event['threads']} threads")
                break
        threading.Thread(target=lambda: [None for _ in server.stderr or ()], daemon=True).start()
        port = int(address.rsplit(":", 1)[1])
        load(port, bodies, 64, options.clients)
        seconds, times, codes = load(port, bodies, options.requests, options.clients)
    finally:
        server.terminate()
        server.wait()
    after = bare_loop(options.model, pictures, options.loop)
    served, bare = len(times) / seconds, statistics.mean([before, after])
    percentiles = statistics.quantiles(times, n=100)
    print(f"statuses {dict(codes)}")
    print(f"served {served:.1f} pictures/s; p50 {1000 * percentiles[49]:.0f} ms, p99 {1000 * percentiles[98]:.0f} ms")
    print(f"bare loop {before:.1f} and {after:.1f} pictures/s: {served / bare:.2f} x")
    if set(codes) - {200, 429}:
        raise SystemExit("there were errors")
    if served < bare:
        raise SystemExit("the server is slower than the bare loop")


if __name__ == "__main__":
    main()

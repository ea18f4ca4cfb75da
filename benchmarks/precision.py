"""The digits demo in bf16 and in fp32, over the same pictures: `python -m benchmarks.precision --epochs 4`.

On two CPU cores it takes about ten minutes; the test split's AP may differ by a point at most.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from tood.cli.demo import demo_run
from tood.data import load_dataset
from tood.data.digits import DigitsConfig, write_digits
from tood.evaluation import evaluate
from tood.training import train
from tood.weights import load_weights

ALLOWED = 0.01


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        digits = Path(folder) / "digits"
        write_digits(str(digits), DigitsConfig())
        test, scores = load_dataset(str(digits), "test"), {}
        for precision in ("bf16", "fp32"):
            run = demo_run(Path(folder) / precision, 3.0, 0)
            run = replace(
                run, minutes=None, epochs=options.epochs, precision=precision, data=replace(run.data, path=str(digits))
            )
            result = train(replace(run, evaluate_every=options.epochs), console=Console())
            model, names = load_weights(result.last)
            scores[precision] = evaluate(model, test, names, batch_size=8).ap
            print(f"{precision}: AP {scores[precision]:.4f} in {result.seconds:.0f} s of training", flush=True)
    difference = scores["bf16"] - scores["fp32"]
    print(f"bf16 - fp32: {difference:+.4f} AP")
    if abs(difference) > ALLOWED:
        raise SystemExit(f"more than {ALLOWED} apart")


if __name__ == "__main__":
    main()

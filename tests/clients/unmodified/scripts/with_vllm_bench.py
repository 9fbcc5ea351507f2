"""vLLM's own load, in Ponder's environment: `vllm.benchmarks.serve`."""

import argparse
import json
import os

from command import folder
from said import MODEL, ROOT, run
from vllm.benchmarks.serve import add_cli_args, main


def bench(backend, endpoint):
    home = folder()
    parser = argparse.ArgumentParser()
    add_cli_args(parser)
    main(
        parser.parse_args(
            [
                "--backend",
                backend,
                "--base-url",
                ROOT,
                "--endpoint",
                endpoint,
                "--model",
                MODEL,
                "--tokenizer",
                os.environ["PONDER_TOKENIZER"],
                "--dataset-name",
                "random",
                "--random-input-len",
                "16",
                "--random-output-len",
                "32",
                "--num-prompts",
                "4",
                "--disable-tqdm",
                "--save-result",
                "--result-dir",
                str(home),
                "--result-filename",
                "out.json",
            ]
        )
    )
    found = json.loads((home / "out.json").read_text())
    return {"completed": found["completed"], "failed": found["failed"]}


def chat():
    return bench("openai-chat", "/v1/chat/completions")


def completions():
    return bench("openai", "/v1/completions")


def responses():
    return bench("openai-responses", "/v1/responses")


run(globals())

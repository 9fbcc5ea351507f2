"""GuideLLM."""

import json
import os

from command import folder, run_program
from said import ROOT, run


def run_benchmark():
    home = folder()
    data = home / "data.jsonl"
    data.write_text("\n".join(json.dumps({"prompt": f"What is {n} + 25?"}) for n in range(10)))
    run_program(
        "guidellm",
        "run",
        "--backend",
        f"kind=openai_http,target={ROOT}",
        "--profile",
        "kind=synchronous",
        "--constraint",
        "kind=max_requests,count=10",
        "--tokenizer",
        f"kind=hf_auto,model={os.environ['PONDER_TOKENIZER']}",
        "--data",
        f"kind=json_file,path={data}",
        "--output",
        f"kind=json,path={home / 'out.json'}",
        "--disable-console",
        cwd=home,
        HF_HUB_OFFLINE="1",
    )
    (found,) = json.loads((home / "out.json").read_text())["benchmarks"]
    totals = found["metrics"]["request_totals"]
    return {"completed": totals["successful"], "failed": totals["errored"]}


run({"run": run_benchmark})

"""EleutherAI's evaluation harness."""

import json
import os

from command import folder, run_program
from said import MODEL, URL, run

CHAT = """\
task: sums
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: [], max_gen_toks: 200, temperature: 0}
filter_list:
  - name: number
    filter: [{function: regex, regex_pattern: "(\\\\d+)"}, {function: take_first}]
metric_list: [{metric: exact_match}]
"""
CHOICE = """\
task: sums
dataset_path: json
dataset_kwargs: {data_files: {test: DATA}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: ["33", "34"]
doc_to_target: 0
metric_list: [{metric: acc}]
"""
ROWS = [{"question": f"What is {n} + 25 - 9?", "answer": str(n + 16)} for n in (17, 18)]


def evaluate(task, *arguments):
    """The results of a task that lies in a folder of its own."""
    home = folder()
    data = home / "data.jsonl"
    data.write_text("\n".join(map(json.dumps, ROWS)))
    (home / "sums.yaml").write_text(task.replace("DATA", str(data)))
    out = home / "out"
    offline = dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"), "1")
    run_program(
        "lm-eval",
        "run",
        "--include_path",
        home,
        "--tasks",
        "sums",
        "--output_path",
        out,
        *arguments,
        OPENAI_API_KEY="none",
        HF_HOME=home / "hf",
        **offline,
    )
    (results,) = out.rglob("results_*.json")
    return json.loads(results.read_text())["results"]["sums"]


def chat():
    found = evaluate(
        CHAT,
        "--model",
        "local-chat-completions",
        "--model_args",
        f"model={MODEL},base_url={URL}/chat/completions",
        "--apply_chat_template",
        "--gen_kwargs",
        "thinking_token_budget=64",
    )
    return {"right": found["exact_match,number"]}


def loglikelihood():
    tokenizer = os.environ["PONDER_TOKENIZER"]
    found = evaluate(
        CHOICE,
        "--model",
        "local-completions",
        "--model_args",
        f"model={MODEL},base_url={URL}/completions,tokenizer={tokenizer}",
    )
    return {"scored": 0 <= found["acc,none"] <= 1}


run(globals())

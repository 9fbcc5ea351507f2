"""EleutherAI's evaluation harness."""

import json
import os
import urllib.request

from command import folder, run_program
from said import KEY, MODEL, URL, run

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
ROWS = [{"question": f"What is {n} + 25 - 9?", "answer": str(n + 16)} for n in range(17, 22)]
NEAR = 0.05  # two runs of the same tokens, in other batches


def evaluate(task, *arguments):
    """The results of a task that lies in a folder of its own, and its samples if they are kept."""
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
    samples = [
        line for file in out.rglob("samples_*.jsonl") for line in file.read_text().split("\n")
    ]
    return json.loads(results.read_text())["results"]["sums"], [
        *map(json.loads, filter(None, samples))
    ]


def chat():
    found, _ = evaluate(
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
    """The harness's log-likelihoods and accuracy, against an echo that it knows nothing of."""
    tokenizer = os.environ["PONDER_TOKENIZER"]
    found, samples = evaluate(
        CHOICE,
        "--model",
        "local-completions",
        "--model_args",
        f"model={MODEL},base_url={URL}/completions,tokenizer={tokenizer}",
        "--log_samples",
    )
    alike, right = [], 0
    for sample in samples:
        told = [float(first) for ((first, _),) in sample["resps"]]
        echoed = [scored(sample["doc"]["question"], f" {word}") for word in ("33", "34")]
        alike += [abs(one - other) < NEAR for one, other in zip(told, echoed, strict=True)]
        right += echoed[0] > echoed[1]
    accuracy = abs(found["acc,none"] - right / len(samples)) < 1e-6
    return {"documents": len(samples), "alike": all(alike), "accuracy": accuracy}


def scored(context, continuation):
    """The log-likelihood of a continuation, by an echo of the whole, and by characters."""
    body = {"prompt": context + continuation, "max_tokens": 0, "echo": True, "logprobs": 1}
    request = urllib.request.Request(
        f"{URL}/completions",
        json.dumps(body).encode(),
        {"content-type": "application/json", "authorization": f"Bearer {KEY}"},
    )
    with urllib.request.urlopen(request) as reply:
        (choice,) = json.load(reply)["choices"]
    told = choice["logprobs"]
    scores = zip(told["text_offset"], told["token_logprobs"], strict=True)
    return sum(score for at, score in scores if at >= len(context))


run(globals())

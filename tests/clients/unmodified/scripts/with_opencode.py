"""opencode: a turn that uses its shell."""

import json

from command import folder, run_program, work_done
from said import MODEL, URL, run

CONFIG = {
    "model": f"ponder/{MODEL}",
    "small_model": f"ponder/{MODEL}",
    "provider": {
        "ponder": {
            "npm": "@ai-sdk/openai-compatible",
            "options": {"baseURL": URL, "apiKey": "none"},
            "models": {MODEL: {"limit": {"context": 200000, "output": 8000}}},
        }
    },
}


def turn():
    work = folder()
    (work / "opencode.json").write_text(json.dumps(CONFIG))
    said = run_program(
        *("opencode", "run", "Write ran.txt."),
        cwd=work,
        HOME=folder(),
        OPENCODE_DISABLE_AUTOUPDATE="1",
        OPENCODE_DISABLE_MODELS_FETCH="1",
    )
    return work_done(work, said)


run(globals())

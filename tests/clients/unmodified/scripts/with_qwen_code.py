"""Qwen Code: a turn that uses its shell."""

from command import folder, run_program, work_done
from said import MODEL, URL, run


def turn():
    work = folder()
    said = run_program(
        *("qwen", "--yolo", "--auth-type", "openai", "--prompt", "Write ran.txt."),
        cwd=work,
        HOME=folder(),
        OPENAI_BASE_URL=URL,
        OPENAI_API_KEY="none",
        OPENAI_MODEL=MODEL,
    )
    return work_done(work, said)


run(globals())

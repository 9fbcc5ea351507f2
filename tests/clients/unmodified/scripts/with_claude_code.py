"""Claude Code: a turn that uses its shell."""

from command import folder, run_program, work_done
from said import MODEL, ROOT, run


def turn():
    work = folder()
    said = run_program(
        *("claude", "--print", "--allowedTools", "Bash", "--model", MODEL, "Write ran.txt."),
        cwd=work,
        HOME=folder(),
        ANTHROPIC_BASE_URL=ROOT,
        ANTHROPIC_API_KEY="none",
        ANTHROPIC_DEFAULT_HAIKU_MODEL=MODEL,
        CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1",
    )
    return work_done(work, said)


run(globals())

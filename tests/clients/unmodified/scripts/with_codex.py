"""Codex CLI: a turn that uses its shell."""

from command import folder, run_program, work_done
from said import MODEL, URL, run

CONFIG = f"""\
model = "{MODEL}"
model_provider = "ponder"
model_context_window = 200000
approval_policy = "never"
sandbox_mode = "danger-full-access"

[model_providers.ponder]
name = "Ponder"
base_url = "{URL}"
wire_api = "responses"
"""


def turn():
    home, work = folder(), folder()
    (home / "config.toml").write_text(CONFIG)
    asked = ("exec", "--skip-git-repo-check", "Write ran.txt.")
    return work_done(work, run_program("codex", *asked, cwd=work, CODEX_HOME=home))


run(globals())

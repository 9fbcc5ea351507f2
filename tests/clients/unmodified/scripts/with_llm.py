"""The program `llm`."""

from command import folder, run_program
from said import MODEL, QUESTION, URL, run


def llm(*arguments):
    """A model by its address, as `extra-openai-models.yaml` names it."""
    home = folder()
    (home / "extra-openai-models.yaml").write_text(
        f"- {{model_id: {MODEL}, model_name: {MODEL}, api_base: '{URL}', "
        "reasoning: true, supports_schema: true, supports_tools: true}\n"
    )
    asked = ("-m", MODEL, "--key", "none", "--no-log", *arguments, QUESTION)
    return {"content": run_program("llm", *asked, LLM_USER_PATH=home).strip()}


def prompt():
    return llm()


def effort():
    return llm("-o", "reasoning_effort", "none")


def schema():
    return llm("--schema", "answer int")


run(globals())

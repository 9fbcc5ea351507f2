"use strict";
// Asks one question and shows the answer as it comes: the thought dimmed, then the answer, then
// what became of the budget.
const at = (id) => document.getElementById(id);
let model = null;
let causes = {};
let asking = null;

async function introduce() {
  const facts = await (await fetch(".", { headers: { accept: "application/json" } })).json();
  const can = facts.capabilities;
  model = facts.model;
  causes = facts.causes;
  at("model").textContent = facts.model;
  at("base").textContent = new URL("v1", location.href).href;
  at("key-field").hidden = !facts.key_needed;
  const about = [facts.about];
  if (!can.thinks) about.push("It does not think: a budget is not for it.");
  else if (can.trained_budgets.length)
    about.push(`It was trained on budgets of ${can.trained_budgets.join(", ")} tokens.`);
  at("about").textContent = about.filter(Boolean).join(" ");
  at("budget").disabled = !can.thinks;
  if (can.budget_ceiling !== null) at("budget").max = can.budget_ceiling;
  if (can.default_budget >= 0) at("budget").placeholder = can.default_budget;
}

// The data of each server-sent event; comments, which fill silence, are left out.
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) if (part.startsWith("data: ")) yield part.slice(6);
  }
}

function told(report) {
  const thought = `${report.thinking_tokens} tokens of thought`;
  const limit = report.budget_requested >= 0 && report.budget_requested !== null;
  const of = limit ? ` of ${report.budget_effective}` : "";
  return `${thought}${of} (${causes[report.end_cause] ?? report.end_cause}), ${report.answer_tokens} of answer`;
}

function fail(message) {
  at("answer").classList.add("error");
  at("answer").textContent += message;
}

async function ask(event) {
  event.preventDefault();
  if (asking) return;
  for (const id of ["thought", "answer", "meter"]) at(id).textContent = "";
  at("answer").classList.remove("error");
  at("reply").hidden = false;
  asking = new AbortController();
  at("send").disabled = true;
  at("stop").hidden = false;
  const headers = { "content-type": "application/json" };
  if (at("key").value) headers.authorization = `Bearer ${at("key").value}`;
  const body = { messages: [{ role: "user", content: at("question").value }], stream: true };
  if (model !== null) body.model = model;
  if (at("budget").value !== "") body.thinking_token_budget = Number(at("budget").value);
  try {
    const response = await fetch("v1/chat/completions", {
      method: "POST", headers, body: JSON.stringify(body), signal: asking.signal,
    });
    if (!response.ok) {
      fail((await response.json()).error.message);
      return;
    }
    let whole = false;
    for await (const data of events(response.body)) {
      if (data === "[DONE]") { whole = true; break; }
      const chunk = JSON.parse(data);
      if (chunk.error) { fail(` ${chunk.error.message}`); return; }
      for (const choice of chunk.choices) {
        at("thought").textContent += choice.delta.reasoning ?? "";
        at("answer").textContent += choice.delta.content ?? "";
        if (choice.ponder) at("meter").textContent = told(choice.ponder);
      }
    }
    if (!whole) fail(" The connection ended before the answer did.");
  } catch (error) {
    if (error.name === "AbortError") at("meter").textContent = "stopped";
    else fail(` The server cannot be reached: ${error.message}`);
  } finally {
    asking = null;
    at("send").disabled = false;
    at("stop").hidden = true;
  }
}

at("ask").addEventListener("submit", ask);
at("stop").addEventListener("click", () => asking?.abort());
at("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    at("ask").requestSubmit();
  }
});
introduce().catch((error) => fail(`The server cannot be reached: ${error.message}`));

// The page: its form, its requests and its replies.

import { Budget, UNLIMITED, named, stops } from "./budget.js";
import { Curve } from "./curve.js";
import { Method } from "./method.js";
import { Reply } from "./reply.js";
import { show as showSavings } from "./savings.js";
import { Failure, get } from "./stream.js";
import { Form, Unreadable } from "./tools.js";

const KEY = "ponder-key"; // in the session's storage, which ends with the tab
const at = (id) => document.getElementById(id);
const copy = (id) => at(id).content.firstElementChild.cloneNode(true);

class Page {
  constructor(facts) {
    const can = facts.capabilities;
    this.facts = facts;
    this.asking = null; // stops the running requests
    this.holdout = null; // the held-out share, once it is known
    this.stops = stops(can, facts.max_model_len);
    this.budgets = [];
    this.replies = [];
    this.form = new Form(at("form"), can, () => this.changed());
    const interval = can.trained_budgets[0] ?? 256;
    this.early = new Method(at("early"), exits(can), interval, () => this.changed());
    this.several = new Method(at("several"), can.strategies, 3, () => this.changed());
    this.introduce(can);
    if (can.thinks) {
      this.add("Budget", opening(can));
      at("compare").addEventListener("change", () => this.compare());
      this.curve = new Curve(at("curve"), this.stops, can.tasks, () => ({
        body: { model: facts.model },
        key: this.key,
        question: at("question").value,
      }));
    } else this.replies.push(this.reply());
    for (const id of ["comparing", "curve", "to-curve"]) at(id).hidden = !can.thinks;
    this.listen();
    this.changed();
    this.saved();
  }

  introduce(can) {
    const { model, about, examples, key_needed } = this.facts;
    at("model").textContent = model;
    at("about").textContent = [about, thinking(can)].filter(Boolean).join(" ");
    at("key-field").hidden = !key_needed;
    at("key").value = sessionStorage.getItem(KEY) ?? "";
    at("examples").replaceChildren(
      ...examples.map((question) => {
        const chip = document.createElement("button");
        chip.type = "button";
        chip.className = "chip";
        chip.textContent = question;
        chip.addEventListener("click", () => {
          at("question").value = question;
          this.changed();
          this.ask();
        });
        return chip;
      }),
    );
    at("send").disabled = false;
  }

  listen() {
    at("ask").addEventListener("submit", (event) => {
      event.preventDefault();
      this.ask();
    });
    at("stop").addEventListener("click", () => this.asking?.abort());
    at("question").addEventListener("input", () => this.changed());
    at("deadline").addEventListener("input", () => this.changed());
    at("question").addEventListener("keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        at("ask").requestSubmit();
      }
    });
    at("key").addEventListener("change", () => {
      sessionStorage.setItem(KEY, this.key);
      at("key").removeAttribute("aria-invalid");
      this.saved();
    });
    at("copy").hidden = !navigator.clipboard; // a page without TLS has no clipboard
    at("copy").addEventListener("click", async () => {
      await navigator.clipboard.writeText(at("curl").textContent);
      at("copy").textContent = "Copied";
    });
  }

  get key() {
    return at("key").value.trim();
  }

  // Add a slider and a place for its reply.
  add(name, tokens) {
    const root = copy("budget-template");
    at("comparing")[this.budgets.length ? "after" : "before"](root);
    this.budgets.push(new Budget(root, name, this.stops, tokens, () => this.changed()));
    this.replies.push(this.reply());
  }

  reply() {
    const root = copy("reply-template");
    at("replies").append(root);
    root.querySelector(".again").addEventListener("click", () => this.ask());
    return new Reply(root, this.facts.causes);
  }

  compare() {
    if (at("compare").checked) this.add("Second budget", UNLIMITED);
    else {
      this.budgets.pop();
      this.replies.pop();
      at("comparing").nextElementSibling.remove();
      at("replies").lastElementChild.remove();
    }
    at("replies").classList.toggle("two", this.replies.length > 1);
    this.changed();
  }

  // The request at one budget, or without one for a model that does not think. Throws Unreadable.
  body(budget) {
    const messages = [{ role: "user", content: at("question").value }];
    const thinks = budget === undefined ? {} : { thinking_token_budget: budget.tokens };
    const options = this.options();
    const ponder = Object.keys(options).length ? { ponder: options } : {};
    return { model: this.facts.model, messages, ...thinks, ...ponder, ...this.form.fields };
  }

  // Ponder's own options. With the exit `agreement` the page shows interim answers.
  options() {
    const [early, several] = [this.early.chosen, this.several.chosen];
    const due = at("deadline").valueAsNumber;
    const options = {};
    if (!Number.isNaN(due)) options.deadline_ms = due;
    if (early) options.early_exit = { method: early.method, interval: early.number };
    if (early?.method === "agreement") options.early_exit.interim = true;
    if (several) options.strategy = { method: several.method, n: several.number };
    return options;
  }

  // Show the request as a command.
  changed() {
    at("copy").textContent = "Copy";
    let body;
    try {
      body = this.body(this.budgets[0]);
    } catch (error) {
      if (!(error instanceof Unreadable)) throw error;
      at("form-error").textContent = error.message;
      return;
    }
    at("form-error").textContent = "";
    const key = this.facts.key_needed ? " -H 'Authorization: Bearer YOUR_KEY'" : "";
    const data = JSON.stringify(body).replaceAll("'", "'\\''");
    const url = new URL("v1/chat/completions", location.href);
    at("curl").textContent =
      `curl ${url}${key} \\\n  -H 'Content-Type: application/json' \\\n  -d '${data}'`;
  }

  async ask() {
    if (this.asking || !at("ask").reportValidity()) return;
    let bodies;
    try {
      bodies = this.replies.map((_, place) => this.body(this.budgets[place]));
    } catch (error) {
      if (!(error instanceof Unreadable)) throw error;
      return; // the panel shows the problem
    }
    this.asking = new AbortController();
    this.busy(true);
    at("replies").hidden = false;
    at("weighed").textContent = "";
    const { signal } = this.asking;
    const refused = (failure) => this.refused(failure);
    const shown = bodies.map((body, place) =>
      this.replies[place].show(body, body.thinking_token_budget, this.key, signal, refused),
    );
    try {
      this.weigh(await Promise.all(shown), bodies);
    } finally {
      this.asking = null;
      this.busy(false);
      this.saved();
    }
  }

  busy(asking) {
    at("send").disabled = asking;
    at("stop").hidden = !asking;
  }

  // Compare the costs of the two budgets that were asked for: the sliders may have moved since.
  weigh(reports, bodies) {
    if (reports.length < 2 || reports.includes(null)) return;
    const [one, other] = reports.map((report) => report.thinking_tokens);
    const apart = Math.abs(one - other);
    const less = bodies[one < other ? 0 : 1].thinking_token_budget;
    at("weighed").textContent = apart
      ? `With ${named(less)} the thought is ${named(apart)} shorter.`
      : "Both thoughts are equally long.";
  }

  refused({ status }) {
    if (status !== 401) return;
    at("key-field").hidden = false;
    at("key").setAttribute("aria-invalid", "true");
    at("key").focus();
  }

  async saved() {
    if (this.holdout === 0 || (this.facts.key_needed && !this.key)) return;
    this.holdout = await showSavings(at("savings"), this.key);
    at("to-savings").hidden = at("savings").hidden;
  }
}

// A sentence about the model and budgets.
function thinking({ thinks, unread, trained_budgets: trained }) {
  if (unread) return "How it writes its thoughts is not understood: a budget is not for it.";
  if (!thinks) return "It does not think: a budget is not for it.";
  if (!trained.length) return "";
  const words = trained.length > 1 ? `${trained.slice(0, -1).join(", ")} and ` : "";
  return `It was trained on budgets of ${words}${trained.at(-1)} tokens.`;
}

// The early exits that need no other input: entropy needs a prefix, whose next token it looks at.
function exits({ early_exits: methods, answer_prefix: prefix }) {
  return methods.filter((method) => method !== "entropy" || prefix);
}

// The initial budget: the server's, or one that a thought fits in.
function opening({ default_budget, trained_budgets, efforts, budget_ceiling }) {
  const fits = default_budget >= 0 ? default_budget : (trained_budgets[1] ?? (efforts.low > 0 ? efforts.low : 1024));
  return Math.min(fits, budget_ceiling ?? Infinity);
}

async function open() {
  at("trouble").hidden = true;
  try {
    new Page(await get("."));
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    at("trouble").hidden = false;
    at("trouble-words").textContent = error.message;
  }
}

at("retry").addEventListener("click", open);
open();

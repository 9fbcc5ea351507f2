// The choice of an early exit: which probes close a thought, and how often they are made.

const WORDS = { agreement: "when its answers agree", entropy: "when it is sure" };

export class Early {
  // `root` holds a select and a number; `changed` is called after each change.
  constructor(root, { thinks, early_exits: methods, trained_budgets: trained }, changed) {
    this.method = root.querySelector("select");
    this.interval = root.querySelector("input");
    root.hidden = !thinks || !methods.length;
    this.method.append(...methods.map((name) => new Option(WORDS[name] ?? name, name)));
    this.interval.value = Math.max(this.interval.min, trained[0] ?? 256);
    root.addEventListener("input", () => {
      this.interval.disabled = !this.method.value;
      changed();
    });
  }

  // What a request says of it. Answers of an agreement are shown while the thought goes on.
  get fields() {
    const method = this.method.value;
    if (!method) return {};
    const shown = method === "agreement" ? { interim: true } : {};
    return { early_exit: { method, interval: this.interval.valueAsNumber, ...shown } };
  }
}

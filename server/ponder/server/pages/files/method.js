// A choice among a server's methods, with the number that belongs to each.

const WORDS = {
  agreement: "when its answers agree",
  entropy: "when it is sure",
  self_consistency: "most thoughts come to it",
  best_of: "the verifier likes it best",
  particles: "copies of the promising",
};

export class Method {
  // `root` holds a select, whose first option is none, and a number, initially `number`. `changed`
  // is called after each change.
  constructor(root, methods, number, changed) {
    this.method = root.querySelector("select");
    this.number = root.querySelector("input");
    root.hidden = !methods.length;
    this.method.append(...methods.map((name) => new Option(WORDS[name] ?? name, name)));
    this.number.value = Math.max(this.number.min, number);
    root.addEventListener("input", () => {
      this.number.disabled = !this.method.value;
      changed();
    });
  }

  // {method, number}, or null for none.
  get chosen() {
    const method = this.method.value;
    return method ? { method, number: this.number.valueAsNumber } : null;
  }
}

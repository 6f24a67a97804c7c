"use strict";
// The report's sample browser. Texts come from a model: they are only ever set as text, never as markup.
(() => {
  const holder = document.getElementById("data");
  if (!holder) return;
  const data = JSON.parse(holder.textContent);
  const form = document.getElementById("filters");
  const list = document.getElementById("list");
  const found = document.getElementById("found");
  const more = document.getElementById("more");
  const PAGE = 50;

  const make = (tag, className, text) => {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  };

  // Whether two variants got different verdicts, or different numbers of each.
  const differ = (answers) => {
    const labels = {};
    for (const [variant, , label] of answers) (labels[variant] ??= []).push(label);
    return new Set(Object.values(labels).map((own) => own.sort().join())).size > 1;
  };
  const samples = data.tasks.flatMap((task) =>
    task.samples.map(([id, prompt, category, answers]) => ({
      task, id, prompt, category,
      answers: answers.map(([variant, text, label, reason, cut, thoughts, number]) =>
        ({ variant, text, label, reason, cut, thoughts, number })),
      differs: differ(answers),
    })));
  const lowered = [];
  const lower = (place) => (lowered[place] ??= data.texts[place].toLowerCase());

  const options = (name, values) => {
    for (const value of values) form.elements[name].add(new Option(value, value));
  };
  options("task", data.tasks.map((task) => task.name));
  options("category", [...new Set(samples.map((sample) => sample.category))].filter(Boolean).sort());
  options("variant", data.variants);
  options("verdict", data.labels);

  const matches = (sample, wanted) => {
    if (wanted.task && sample.task.name !== wanted.task) return false;
    if (wanted.category && sample.category !== wanted.category) return false;
    if (wanted.differ && !sample.differs) return false;
    if (wanted.variant || wanted.verdict) {
      const fits = sample.answers.some((answer) =>
        (!wanted.variant || data.variants[answer.variant] === wanted.variant) &&
        (!wanted.verdict || data.labels[answer.label] === wanted.verdict));
      if (!fits) return false;
    }
    return !wanted.search || sample.id.toLowerCase().includes(wanted.search) ||
      lower(sample.prompt).includes(wanted.search) ||
      sample.answers.some((answer) => lower(answer.text).includes(wanted.search));
  };

  const verdict = (answer, name, times = "") => {
    const label = data.labels[answer.label];
    return make("span", `verdict ${label}`, name ? `${name}: ${times}${label}` : label);
  };

  const opened = (sample) => {
    const body = make("div");
    body.append(make("h3", "", "Prompt"));
    const prompt = make("pre", "", data.texts[sample.prompt]);
    prompt.dir = "auto";
    const answers = make("div", "answers");
    for (const answer of sample.answers) {
      const article = make("article");
      const number = answer.number ? `answer ${answer.number} ` : "";
      const head = make("h4", "", `${data.variants[answer.variant]} ${number}`);
      head.append(verdict(answer));
      if (data.reasons[answer.reason]) head.append(make("span", "quiet", ` ${data.reasons[answer.reason]}`));
      const text = make("pre", "", data.texts[answer.text]);
      text.dir = "auto";
      text.tabIndex = 0;
      article.append(head);
      if (answer.thoughts != null) {
        const folded = make("details", "quiet");
        const thoughts = make("pre", "", data.texts[answer.thoughts]);
        thoughts.dir = "auto";
        folded.append(make("summary", "", "Reasoning"), thoughts);
        article.append(folded);
      }
      article.append(text);
      if (answer.cut) article.append(make("p", "quiet", "Cut by the token limit."));
      answers.append(article);
    }
    body.append(prompt, answers);
    return body;
  };

  const row = (sample) => {
    const details = make("details", "sample");
    const summary = make("summary");
    summary.append(make("code", "", sample.id), make("span", "quiet", ` ${sample.task.name}`));
    if (sample.category) summary.append(make("span", "quiet", ` · ${sample.category}`));
    if (sample.task.kind === "benign") summary.append(` ${data.texts[sample.prompt].slice(0, 90)}`);
    const verdicts = make("span", "verdicts");
    const counts = new Map(); // of several answers, each verdict of a variant once
    for (const answer of sample.answers) {
      const key = `${answer.variant} ${answer.label}`;
      counts.set(key, { answer, n: (counts.get(key)?.n ?? 0) + 1 });
    }
    for (const { answer, n } of counts.values()) {
      const times = answer.number ? `${n} × ` : "";
      verdicts.append(verdict(answer, `${data.variants[answer.variant]}`, times));
    }
    summary.append(verdicts);
    details.append(summary);
    details.addEventListener("toggle", () => {
      if (details.open && details.childElementCount === 1) details.append(opened(sample));
    });
    return details;
  };

  let shown = [];
  const extend = () => {
    const from = list.childElementCount;
    list.append(...shown.slice(from, from + PAGE).map(row));
    more.hidden = list.childElementCount >= shown.length;
  };
  const refresh = () => {
    const wanted = Object.fromEntries(new FormData(form));
    wanted.search = (wanted.search || "").trim().toLowerCase();
    shown = samples.filter((sample) => matches(sample, wanted));
    list.replaceChildren();
    found.textContent = `${shown.length.toLocaleString("en")} of ${samples.length.toLocaleString("en")} samples`;
    extend();
  };

  let waiting;
  form.addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(refresh, 120); });
  form.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => {
    const next = list.childElementCount;
    extend();
    list.children[next]?.querySelector("summary").focus();
  });
  form.hidden = false;
  refresh();
})();

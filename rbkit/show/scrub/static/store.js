// What one view of the scrubber knows: the runs decoded, where the slider is, what is hovered.
const TRAITS = ["title", "domains", "runs", "stops", "scale", "menu", "notices", "replay", "at", "kind", "selected"];
const REST = 180;  // ms after which the place of the slider is told to Python

class Store extends Conversation {
  constructor(model) {
    super(model);
    this.hover = null;  // {domain} or {domain, other}: places in `domains`
    this.look = {};
    this.save = debounced(REST, () => model.save_changes());
    this.fetch = debounced(REST, (run, round) => this.askGram(run, round));
    for (const name of TRAITS) {
      this.decode(name);
      this.listen(`change:${name}`, () => {
        this.decode(name);
        this.touch(name);
      });
    }
    this.listen("msg:custom", (message, buffers) => this.hear(message, buffers));
  }

  decode(name) {
    const value = this.model.get(name);
    if (name === "runs") this.runs = (value || []).map((run, i) => new Recorded(run, i));
    else if (name === "replay") this.replay = value && value.p ? decodeReplay(value) : null;
    else if (["domains", "stops", "menu", "notices"].includes(name)) this[name] = value || [];
    else if (name === "at") this.at = value || 0;
    else if (name === "selected") this.selected = Number.isInteger(value) ? value : -1;
    else this[name] = value;
  }

  dispose() {
    this.save.cancel();
    this.fetch.cancel();
    super.dispose();
  }

  put(name, value) {
    if (this.model.get(name) === value) return;
    this.model.set(name, value);
    this.save();
  }

  /** Step that the slider stands at; before any round has ended, 0. */
  get step() {
    return this.stops.length ? this.stops[clamp(this.at, 0, this.stops.length - 1)] : 0;
  }

  get lastStep() {
    const ends = this.runs.flatMap((run) => [run.edges[run.rounds], ...run.evaluation.steps.slice(-1), ...run.train[0].slice(-1)]);
    return Math.max(1, ...ends.filter(Number.isFinite));
  }

  moveTo(stop) {
    this.put("at", clamp(Math.round(stop), 0, Math.max(0, this.stops.length - 1)));
  }

  /** Move to the round that is in force at a step. */
  moveToStep(step) {
    const found = this.stops.findIndex((stop) => stop >= step);
    this.moveTo(found < 0 ? this.stops.length - 1 : found);
  }

  select(domain) {
    this.put("selected", domain === this.selected ? -1 : domain);
  }

  nameOf(domain) {
    return this.domains[domain] ? String(this.domains[domain].name) : "others";
  }

  colourOf(domain) {
    return safeColour(this.domains[domain]?.colour);
  }

  /** The domain whose loss is drawn: the selected one, else the run's worst. */
  lossDomain(run) {
    return this.selected >= 0 ? run.placeOf(this.selected) : run.worst;
  }

  async askGram(run, round) {
    if (run.wanted.has(round)) return;
    run.wanted.add(round);
    const reply = await this.ask({ type: "gram", run: run.index, round });
    if (reply.type === "gram") run.take(round, reply.buffers);
    this.touch("gram");
  }
}

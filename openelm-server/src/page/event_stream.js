// Server-sent events (HTML Standard, section 9.2.6) from bytes that are cut anywhere.

/** Makes events of bytes. Fields other than `data` are ignored. */
export class EventStreamParser {
  #decoder = new TextDecoder();
  #line = "";
  #data = [];
  #ignoresLineFeed = false;

  /** Takes further bytes and returns the data of each event that they complete. */
  push(bytes) {
    let text = this.#decoder.decode(bytes, { stream: true });
    if (text === "") {
      return [];
    }
    // The line feed of a CR LF that was cut between the two.
    if (this.#ignoresLineFeed && text.startsWith("\n")) {
      text = text.slice(1);
    }
    this.#ignoresLineFeed = text.endsWith("\r");
    const lines = text.split(/\r\n|\n|\r/);
    lines[0] = this.#line + lines[0];
    this.#line = lines.pop();
    return lines.map((line) => this.#take(line)).filter((data) => data !== null);
  }

  /** Takes a line, and returns the data of the event that ends with it, or null. */
  #take(line) {
    if (line === "") {
      const data = this.#data;
      this.#data = [];
      return data.length > 0 ? data.join("\n") : null;
    }
    const [, field, value] = line.match(/^([^:]*)(?:: ?)?([^]*)$/);
    if (field === "data") {
      this.#data.push(value);
    }
    return null;
  }
}

// The median of `total` for each customer. It takes all values of a key together, so it is streamed.
({
  begin(key) { this.totals = []; },
  next(total) { this.totals.push(total); },
  end() {
    this.totals.sort((a, b) => a - b);
    const middle = this.totals.length >> 1;
    return this.totals.length % 2 ? this.totals[middle] : (this.totals[middle - 1] + this.totals[middle]) / 2;
  },
})

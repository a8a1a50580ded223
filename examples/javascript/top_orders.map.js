// The three dearest orders of each customer, as {top: [{id, total}, …]}: by total, then by id.
function () {
  emit(this.customer, { top: [{ id: NumberInt(this._id), total: this.total }] });
}

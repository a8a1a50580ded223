// What each customer spent: the sum of `total`.
function () {
  emit(this.customer, this.total);
}

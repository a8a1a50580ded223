function () {
  emit(this.customer, this.total);
}

function (key, values) {
  let sum = 0;
  for (const total of values) sum += total;
  return sum;
}

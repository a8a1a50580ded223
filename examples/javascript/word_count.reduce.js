function (key, values) {
  let sum = 0;
  for (const n of values) sum += Number(n);
  return NumberLong(sum);
}

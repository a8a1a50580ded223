// Counts words: runs of the letters a to z, whatever their case.
function () {
  const words = this.text.toLowerCase().match(/[a-z]+/g);
  if (words === null) return;
  for (const word of words) emit(word, 1);
}

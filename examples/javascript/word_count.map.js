// Counts words: runs of ASCII letters and digits in `text`, in lower case.
function () {
  const words = this.text.match(/[A-Za-z0-9]+/g);
  if (words === null) return;
  for (const word of words) emit(word.toLowerCase(), NumberInt(1));
}

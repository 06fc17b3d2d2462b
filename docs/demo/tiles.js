// Images too large to be translated whole: in overlapping tiles, blended. Each tile is normalised by itself, so that
// they may differ a little in brightness; inference/tiles.py, which takes networks apart, has no such seams.

const overlap = tile => Math.floor(tile / 4);

/** Where tiles begin so that they cover `length` pixels, the last one ending with them. */
export function starts(length, tile) {
  const begins = [];
  for (let begin = 0; begin < length - tile; begin += tile - overlap(tile)) begins.push(begin);
  return [...begins, length - tile];
}

/** The weights of a tile's rows or columns: falling linearly towards the tiles before and behind it. */
export function window(tile, first, last) {
  const fade = overlap(tile);
  return Float32Array.from({ length: tile }, (_, i) =>
    (first ? 1 : Math.min(1, (i + 0.5) / fade)) * (last ? 1 : Math.min(1, (tile - i - 0.5) / fade)));
}

/**
 * `image` {data: bytes H×W×channelsIn, height, width} to the same with `channelsOut`, by tiles of at most `side`².
 * `translate` does one; `progress` is told the share that is done after each.
 */
export async function inTiles(translate, image, channelsIn, channelsOut, side, progress) {
  const { height, width } = image;
  const [tall, wide] = [Math.min(side, height), Math.min(side, width)];
  if (tall === height && wide === width) return { ...image, data: await translate(image.data, height, width) };
  const blended = new Float32Array(height * width * channelsOut), weights = new Float32Array(height * width);
  const places = starts(height, tall).flatMap(top => starts(width, wide).map(left => [top, left]));
  for (const [number, [top, left]] of places.entries()) {
    const cut = new Uint8Array(tall * wide * channelsIn);
    for (let y = 0; y < tall; y++) {
      const from = ((top + y) * width + left) * channelsIn;
      cut.set(image.data.subarray(from, from + wide * channelsIn), y * wide * channelsIn);
    }
    const tile = await translate(cut, tall, wide);
    const rows = window(tall, top === 0, top + tall === height);
    const columns = window(wide, left === 0, left + wide === width);
    for (let y = 0; y < tall; y++) {
      for (let x = 0; x < wide; x++) {
        const weight = rows[y] * columns[x], place = (top + y) * width + left + x;
        weights[place] += weight;
        for (let c = 0; c < channelsOut; c++) {
          blended[place * channelsOut + c] += weight * tile[(y * wide + x) * channelsOut + c];
        }
      }
    }
    progress((number + 1) / places.length);
  }
  return { ...image, data: Uint8Array.from(blended, (sum, i) => Math.round(sum / weights[Math.floor(i / channelsOut)])) };
}

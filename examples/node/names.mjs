// Names of users and rooms (SPEC.md, section 12), with the Unicode version of this Node.js.

// Full case folding, which JavaScript lacks. Mapping case three times differs from it in the dotless i, which `fold`
// leaves out, and in the preferred case of Cherokee, which changes no comparison.
const foldPart = (text) => text.toLowerCase().toUpperCase().toLowerCase().replaceAll('ς', 'σ');
const fold = (text) => text.split('ı').map(foldPart).join('ı');

const strip = (name) => name.replace(/\p{Default_Ignorable_Code_Point}/gu, '');
const badEdges = (text) => /^ | $| {2}|^\p{M}/u.test(text);

export function keyOf(name) {
  return fold(fold(strip(name).normalize('NFD')).normalize('NFKD')).normalize('NFKD');
}

// The name in NFC, or null if it is not allowed.
export function checkName(name) {
  const normal = name.normalize('NFC');
  const octets = Buffer.byteLength(normal);
  const allowed =
    octets > 0 && octets <= 64 && !/[\p{C}\p{Zl}\p{Zp}\u{2800}\u{1D159}\u{13441}\u{13442}]|(?! )\p{Zs}/u.test(normal);
  return allowed && keyOf(normal) !== '' && !badEdges(normal) && !badEdges(strip(normal)) ? normal : null;
}

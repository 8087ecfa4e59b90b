// Names of users and rooms (SPEC.md, section 12), with the Unicode version of this Node.js.

// Full case folding, which JavaScript lacks. Mapping case three times differs from it in the dotless i, which `fold`
// leaves out, and in the preferred case of Cherokee, which changes no comparison.
const foldPart = (text) => text.toLowerCase().toUpperCase().toLowerCase().replaceAll('ς', 'σ');
const fold = (text) => text.split('ı').map(foldPart).join('ı');

export function keyOf(name) {
  const visible = name.replace(/\p{Default_Ignorable_Code_Point}/gu, '');
  return fold(fold(visible.normalize('NFD')).normalize('NFKD')).normalize('NFKD');
}

// The name in NFC, or null if it is not allowed.
export function checkName(name) {
  const normal = name.normalize('NFC');
  const octets = Buffer.byteLength(normal);
  const allowed = octets > 0 && octets <= 64 && !/[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}|^ | $| {2}|^\p{M}/u.test(normal);
  return allowed && keyOf(normal) !== '' ? normal : null;
}

// Texts of the page whose contrast with what is behind them is below 4.5 to 1.
const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const over = (colour, below) => {
  canvas.fillStyle = `rgb(${below.join(",")})`;
  canvas.fillRect(0, 0, 1, 1);
  canvas.fillStyle = colour;
  canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
};
const light = (rgb) => rgb.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const behind = (node) => (node ? over(getComputedStyle(node).backgroundColor, behind(node.parentElement)) : [255, 255, 255]);
const found = [];
for (const node of document.body.querySelectorAll("*")) {
  const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
  if (!own || !node.checkVisibility() || ["SCRIPT", "TITLE", "NOSCRIPT", "OPTION"].includes(node.nodeName.toUpperCase())) continue;
  const back = behind(node);
  const style = getComputedStyle(node);
  const [p, q] = [light(over(node.namespaceURI.includes("svg") ? style.fill : style.color, back)), light(back)];
  const contrast = (Math.max(p, q) + 0.05) / (Math.min(p, q) + 0.05);
  if (contrast < 4.5) found.push(`${node.nodeName}.${node.getAttribute("class")} ${contrast.toFixed(2)} ${node.textContent.slice(0, 40)}`);
}
return [...new Set(found)];

// Style of report.html: system fonts, light and dark, down to the width of a phone.
#include "launch/report/report.h"

namespace moebius {

const char kPageStyle[] = R"css(
:root{color-scheme:light;--bg:#fbfaf8;--card:#fff;--ink:#1d1e22;--soft:#62646c;--line:#e4e2dd;--grid:#efede8;
--c0:#2458a6;--c1:#c4501b;--c2:#2e7d5b;--c3:#7c4796;--c4:#94660a;--c5:#0e7490;--c6:#b0325c;--c7:#5d6470;
--h0:#2166ac;--h1:#4a90c2;--h2:#8fbfdc;--h3:#c8dfec;--h4:#f1eee9;--h5:#f9d5bc;--h6:#f0a27e;--h7:#d6604d;--h8:#a81c2e}
:root[data-theme=dark]{color-scheme:dark;--bg:#131418;--card:#1b1d22;--ink:#e9e8e4;--soft:#9b9da6;--line:#30323a;--grid:#272930;
--c0:#7fb0f5;--c1:#f39661;--c2:#6fcf9f;--c3:#c99be6;--c4:#e0b64f;--c5:#5cc8de;--c6:#f08bb0;--c7:#b3b8c2;
--h0:#7cc0ff;--h1:#4f93d2;--h2:#33679b;--h3:#2a4664;--h4:#2d2f36;--h5:#5f3b2f;--h6:#9c5238;--h7:#dd7750;--h8:#ffb08a}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.55 system-ui,-apple-system,"Segoe UI",Inter,Roboto,"Helvetica Neue",Arial,sans-serif;
font-variant-numeric:tabular-nums;-webkit-font-smoothing:antialiased}
header,main{max-width:1240px;margin:0 auto;padding:0 28px}
header{position:relative;padding-top:52px}
.kicker{margin:0;color:var(--soft);font-size:13px;letter-spacing:.06em}
h1,h2{font-family:"Iowan Old Style","Palatino Linotype",Palatino,"URW Palladio L","Book Antiqua",Georgia,"DejaVu Serif",serif;font-weight:600;letter-spacing:-.01em}
h1{font-size:40px;line-height:1.15;margin:4px 0 26px;overflow-wrap:anywhere}
h2{font-size:24px;margin:0 0 14px}
h3{font-size:15px;font-weight:600;margin:0}
section{margin:46px 0}
#theme{position:absolute;right:28px;top:48px;border:1px solid var(--line);background:var(--card);border-radius:50%;width:36px;height:36px;padding:0;cursor:pointer}
#theme::before{content:"";display:block;width:16px;height:16px;margin:auto;border:1.5px solid var(--ink);border-radius:50%;background:linear-gradient(90deg,var(--ink) 50%,transparent 50%)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(140px,1fr));gap:1px;background:var(--card);border:1px solid var(--line);border-radius:12px;overflow:hidden}
.tile{box-shadow:0 0 0 1px var(--line);padding:16px 18px 14px}
.tile b{display:block;font-size:25px;font-weight:600;letter-spacing:-.02em;line-height:1.2;white-space:nowrap}
.tile span{display:block;color:var(--ink);font-size:13px}
.tile small{color:var(--soft);font-size:12px}
.grid2{display:grid;grid-template-columns:repeat(auto-fit,minmax(440px,1fr));gap:20px}
.grid2>:only-child{grid-column:1/-1;max-width:840px}
figure{margin:0}
.chart{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:16px 16px 8px;min-width:0}
.chart figcaption{display:flex;flex-wrap:wrap;align-items:baseline;gap:2px 10px;padding:0 4px 6px}
.unit{color:var(--soft);font-size:13px}
.legend{margin-left:auto;display:flex;flex-wrap:wrap;gap:2px 14px;font-size:13px;color:var(--soft)}
.legend span{overflow-wrap:anywhere}
.mark{display:inline-block;width:16px;height:3px;border-radius:2px;margin-right:6px;vertical-align:middle;background:var(--c)}
.mark.round{width:8px;height:8px;border-radius:50%}
.mark.gap,.again .mark{background:repeating-linear-gradient(90deg,var(--c) 0 5px,transparent 5px 8px)}
.again .mark.round,.oncemore .mark.round{background:none;border:2px solid var(--c)}
.oncemore .mark{background:repeating-linear-gradient(90deg,var(--c) 0 2px,transparent 2px 6px)}
.c0{--c:var(--c0)}.c1{--c:var(--c1)}.c2{--c:var(--c2)}.c3{--c:var(--c3)}.c4{--c:var(--c4)}.c5{--c:var(--c5)}.c6{--c:var(--c6)}.c7{--c:var(--c7)}
svg{display:block;width:100%}
.chart svg{height:auto;overflow:visible;cursor:crosshair}
.grid{stroke:var(--grid)}
.axis{stroke:var(--soft);stroke-opacity:.5}
.tick,.label{fill:var(--soft);font-size:12.5px}
.line{fill:none;stroke:var(--c);stroke-width:2;stroke-linejoin:round;stroke-linecap:round}
.line.faint{stroke-width:1;stroke-opacity:.28}
.line.thin{stroke-width:1.5;stroke-opacity:.75}
.line.dashed,.line.again{stroke-dasharray:6 4}.line.oncemore{stroke-dasharray:1 5}
.dot{fill:var(--c);stroke:var(--card);stroke-width:1}
.band{fill:var(--c);fill-opacity:.16}
.rule{stroke:var(--soft);stroke-opacity:.6;stroke-dasharray:3 3}
#tip{position:fixed;z-index:9;pointer-events:none;background:var(--ink);color:var(--bg);border-radius:8px;padding:7px 11px;font-size:13px;line-height:1.5;box-shadow:0 4px 18px #0004;white-space:nowrap}
#tip i{display:inline-block;width:8px;height:8px;border-radius:50%;margin-right:7px;background:var(--c)}
#tip b{float:right;margin-left:18px;font-weight:600}
.scale{display:flex;align-items:flex-end;gap:0;font-size:12px;color:var(--soft);margin:22px 0 14px}
.scale b{font-weight:400;font-size:13px;margin-right:14px}
.scale span{width:40px;text-align:center;line-height:1.3;display:flex;flex-direction:column-reverse;min-height:30px;justify-content:flex-start}
.scale i{display:block;height:10px;background:var(--h)}
.h0{--h:var(--h0);fill:var(--h0)}.h1{--h:var(--h1);fill:var(--h1)}.h2{--h:var(--h2);fill:var(--h2)}.h3{--h:var(--h3);fill:var(--h3)}.h4{--h:var(--h4);fill:var(--h4)}
.h5{--h:var(--h5);fill:var(--h5)}.h6{--h:var(--h6);fill:var(--h6)}.h7{--h:var(--h7);fill:var(--h7)}.h8{--h:var(--h8);fill:var(--h8)}
.heats{display:grid;grid-template-columns:repeat(auto-fill,minmax(270px,1fr));gap:18px}
.heat{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:12px 14px 10px}
.heat figcaption{display:flex;justify-content:space-between;align-items:baseline;font-weight:600;font-size:14px;margin-bottom:8px;white-space:nowrap}
.heat .unit{font-weight:400;font-size:12px}
.heatrow{display:flex;gap:6px}
.experts,.steps{display:flex;justify-content:space-between;color:var(--soft);font-size:11.5px}
.experts{flex-direction:column;writing-mode:horizontal-tb;text-align:right;min-width:18px}
.experts span:nth-child(2){writing-mode:vertical-rl;transform:rotate(180deg);align-self:flex-end}
.heat svg{flex:1 1 0;width:0;min-width:0;border-radius:4px;cursor:crosshair}
.steps{margin:4px 0 0 24px}
.scroll{overflow-x:auto;background:var(--card);border:1px solid var(--line);border-radius:12px}
table{border-collapse:collapse;width:100%;font-size:14px}
th,td{padding:8px 16px;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
td:first-child{white-space:normal;overflow-wrap:anywhere;min-width:9em;max-width:22em}
td:first-child code{white-space:nowrap}
tr:last-child td{border-bottom:0}
th{color:var(--soft);font-weight:500;font-size:13px}
th:first-child,td:first-child,.left th,.left td{text-align:left}
.left td:not(:first-child){white-space:normal;overflow-wrap:anywhere}
code,pre{font:13px/1.5 ui-monospace,"SF Mono","Cascadia Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace}
pre{margin:0;padding:14px 18px;overflow-x:auto}
details{margin-top:14px;background:var(--card);border:1px solid var(--line);border-radius:12px}
summary{padding:11px 18px;cursor:pointer}
.note{color:var(--soft)}
section h3{margin:22px 0 10px}
.chart h3{margin:0}
.sample{display:grid;grid-template-columns:92px 1fr;gap:18px;padding:16px 0;border-top:1px solid var(--line)}
.sample:first-of-type{border-top:0;padding-top:4px}
.when{color:var(--soft);font-size:13px;line-height:1.35}
.when b{color:var(--ink);font-size:17px}
.texts p{margin:0 0 10px;max-width:76ch;white-space:pre-wrap;overflow-wrap:anywhere;font-family:"Iowan Old Style","Palatino Linotype",Palatino,"URW Palladio L",Georgia,"DejaVu Serif",serif;font-size:16px}
.texts b{font-weight:600;color:var(--c0)}
.reader{--up:var(--c0);--down:var(--c1)}
.picker{position:sticky;top:0;z-index:5;display:flex;align-items:center;gap:12px;background:var(--bg);padding:10px 0;margin-bottom:6px;border-bottom:1px solid var(--line)}
.picker[hidden]{display:none}
.picker button{width:38px;height:38px;border:1px solid var(--line);border-radius:10px;background:var(--card);color:var(--ink);font-size:20px;line-height:1;cursor:pointer}
.picker button:disabled{opacity:.4;cursor:default}
.picker input{flex:1 1 0;min-width:0;height:30px;margin:0;accent-color:var(--c0)}
.picker output{min-width:104px;text-align:right;color:var(--soft);white-space:nowrap}
.step>h3{display:flex;flex-wrap:wrap;align-items:baseline;gap:2px 12px;font-size:17px;margin:14px 0 10px}
.step .unit{font-weight:400}
.set{background:var(--card);border:1px solid var(--line);border-radius:12px;padding:16px;margin-bottom:16px}
.ask{display:flex;flex-wrap:wrap;gap:6px 40px;margin-bottom:12px}
.ask small{display:block;color:var(--soft);font-size:12.5px}
.ask p,.thoughts,.answer{margin:0;white-space:pre-wrap;overflow-wrap:anywhere;font:14px/1.5 ui-monospace,"SF Mono","Cascadia Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace}
.ask p{font-size:15px}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,252px),1fr));gap:12px;align-items:start}
.card{border:1px solid var(--line);border-left:4px solid var(--line);border-radius:8px;padding:10px 12px;min-width:0;background:var(--bg)}
.card.up{border-left-color:var(--up)}.card.down{border-left-color:var(--down)}
.adv.num::after{content:" advantage";font-weight:400;font-size:12px;color:var(--soft)}
.up .adv{color:var(--up)}.down .adv{color:var(--down)}
.top{display:flex;flex-wrap:wrap;align-items:baseline;gap:2px 6px;margin-bottom:8px}
.verdict b{font-weight:650}
.verdict{margin-left:auto;font-size:12.5px;border:1px solid var(--line);border-radius:20px;padding:0 7px;background:var(--card);overflow-wrap:anywhere}
.thoughts{color:var(--soft);font-size:13px;max-height:26em;overflow-y:auto;border-left:2px solid var(--line);padding-left:10px;margin:6px 0}
.answer{font-weight:600}
.answer i{font-weight:400;color:var(--soft)}
.cut{font-style:italic;color:var(--c4)}
.figures{display:flex;flex-wrap:wrap;gap:0 14px;margin-top:9px;padding-top:7px;border-top:1px solid var(--line);font-size:13px;color:var(--soft)}
.figures b{font-weight:500;color:var(--ink)}
.figures .main b{font-weight:700}
:focus-visible{outline:2px solid var(--c0);outline-offset:2px}
@media(max-width:560px){.tick,.label{font-size:18px}.grid2{grid-template-columns:1fr}header,main{padding-left:14px;padding-right:14px}.sample{grid-template-columns:1fr;gap:4px}}
@media print{#theme,.picker{display:none}section{break-inside:avoid}}
)css";

}  // namespace moebius

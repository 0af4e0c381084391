// Style and script of the timeline page. No network: system fonts, and a few lines of JavaScript to zoom,
// show values and follow a microbatch; the page reads the same without them.
#include "parallel/pipeline/timeline.h"

namespace moebius {

const char kTimelineStyle[] = R"css(
:root{color-scheme:light;--bg:#fbfaf8;--card:#fff;--ink:#1d1e22;--soft:#62646c;--line:#e4e2dd;--grid:#efede8;--hatch:#dcd9d2;
--f:#2f66b3;--i:#20a0b4;--b:#22704f;--w:#c98a1b;--x:#8a63b8;--r:#b0325c;--o:#5d6470;--on:#fff}
:root[data-theme=dark]{color-scheme:dark;--bg:#131418;--card:#1b1d22;--ink:#e9e8e4;--soft:#9b9da6;--line:#30323a;--grid:#272930;--hatch:#3a3d46;
--f:#6fa4ee;--i:#4cc4d6;--b:#41a37a;--w:#e3b04b;--x:#b795e0;--r:#f08bb0;--o:#a4a9b4;--on:#111317}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:15px/1.55 system-ui,-apple-system,"Segoe UI",Inter,Roboto,"Helvetica Neue",Arial,sans-serif;
font-variant-numeric:tabular-nums;-webkit-font-smoothing:antialiased}
header,main{max-width:1680px;margin:0 auto;padding:0 32px}
header{position:relative;padding-top:40px}
.kicker{margin:0;color:var(--soft);font-size:13px;letter-spacing:.06em}
h1,h2{font-family:"Iowan Old Style","Palatino Linotype",Palatino,"URW Palladio L","Book Antiqua",Georgia,"DejaVu Serif",serif;font-weight:600;letter-spacing:-.01em}
h1{font-size:38px;line-height:1.15;margin:2px 0 6px;overflow-wrap:anywhere}
h2{font-size:23px;margin:0}h2::first-letter{text-transform:uppercase}
.sub{margin:0;color:var(--soft)}
section{margin:30px 0}
.head{display:flex;flex-wrap:wrap;align-items:baseline;gap:4px 26px;margin-bottom:10px}
.head span{color:var(--soft)}
.head b{color:var(--ink);font-weight:600;font-size:17px}
.bar{position:sticky;top:0;z-index:5;background:var(--bg);display:flex;flex-wrap:wrap;align-items:center;gap:6px 18px;padding:14px 0 10px;margin-top:12px;font-size:13px;color:var(--soft)}
.key{white-space:nowrap}
.key svg{display:inline-block;width:22px;height:14px;vertical-align:-2px;margin-right:6px}
.tools{margin-left:auto;display:flex;gap:6px}
button{font:inherit;color:var(--ink);border:1px solid var(--line);background:var(--card);border-radius:8px;min-width:32px;height:30px;padding:0 9px;cursor:pointer}
button:hover{border-color:var(--soft)}
.chart{display:grid;grid-template-columns:auto minmax(0,1fr) auto;background:var(--card);border:1px solid var(--line);border-radius:12px;overflow:hidden}
.side{padding:0 14px;font-size:13px;line-height:16px;white-space:nowrap}
.side div{display:flex;flex-direction:column;justify-content:center}
.side small{color:var(--soft);font-size:11.5px;max-width:90px;overflow:hidden;text-overflow:ellipsis}
.right{width:104px;text-align:right;border-left:1px solid var(--line)}
.left{border-right:1px solid var(--line);width:118px}
.side .worst{color:var(--r);font-weight:600}
.cap{color:var(--soft);font-size:11.5px}
.scroll{overflow-x:auto;overflow-y:hidden;scrollbar-width:thin}
.scroll>svg{display:block;width:100%;min-width:100%}
rect{stroke:var(--card);stroke-width:1}
.f{fill:var(--f)}.i{fill:var(--i)}.b{fill:var(--b)}.w{fill:var(--w)}.r{fill:var(--r)}.o{fill:var(--o)}
.s1{fill-opacity:.56}.s2{fill-opacity:.34}
.x{fill-opacity:.75;stroke:none}
.idle{fill:url(#hatch);stroke:none}
.hatch{stroke:var(--hatch);stroke-width:1.4}
.row{stroke:var(--grid)}
.tick{stroke:var(--grid)}
text{font-size:11px;fill:var(--on);text-anchor:middle;dominant-baseline:central;pointer-events:none;font-weight:500}
text.d{fill:var(--ink)}
text.half{font-size:10.5px}
text.time{fill:var(--soft);font-weight:400;font-size:11.5px}
#tip{position:fixed;z-index:9;pointer-events:none;background:var(--ink);color:var(--bg);border-radius:8px;padding:6px 11px;font-size:13px;line-height:1.5;box-shadow:0 4px 18px #0004;white-space:pre}
details{margin-top:12px;background:var(--card);border:1px solid var(--line);border-radius:12px;overflow-x:auto}
summary{padding:9px 16px;cursor:pointer;font-size:14px}
table{border-collapse:collapse;width:100%;font-size:14px}
th,td{padding:6px 16px;text-align:right;border-top:1px solid var(--line);white-space:nowrap}
th{color:var(--soft);font-weight:500;font-size:13px}
th:first-child,td:first-child{text-align:left}
@media(max-width:640px){header,main{padding:0 12px}}
@media print{@page{size:landscape;margin:10mm}.tools,#tip{display:none}.bar{position:static}section{break-inside:avoid}
body{background:#fff;-webkit-print-color-adjust:exact;print-color-adjust:exact}}
)css";

const char kTimelineScript[] = R"js(
const root=document.documentElement,tip=document.getElementById('tip'),follow=document.getElementById('follow');
const panes=[...document.querySelectorAll('.scroll')],charts=panes.map(p=>p.firstElementChild);
root.dataset.theme=matchMedia('(prefers-color-scheme: dark)').matches?'dark':'light';
document.getElementById('theme').onclick=()=>root.dataset.theme=root.dataset.theme=='dark'?'light':'dark';
let zoom=1;
const layout=()=>charts.forEach((svg,k)=>{svg.style.width=100*zoom+'%';
 svg.setAttribute('class','z'+Math.max(0,Math.min(28,Math.floor(4*Math.log2(panes[k].clientWidth*zoom/600)))))});
const setZoom=(z,pane,x)=>{pane=pane||panes[0];x=x===undefined?pane.clientWidth/2:x;
 const at=(pane.scrollLeft+x)/(pane.clientWidth*zoom);zoom=Math.max(1,Math.min(64,z));layout();
 panes.forEach(p=>p.scrollLeft=at*p.clientWidth*zoom-x)};
document.getElementById('in').onclick=()=>setZoom(zoom*2);
document.getElementById('out').onclick=()=>setZoom(zoom/2);
document.getElementById('fit').onclick=()=>setZoom(1);
panes.forEach(pane=>{
 pane.addEventListener('wheel',ev=>{if(!ev.ctrlKey&&!ev.metaKey)return;ev.preventDefault();
  setZoom(zoom*Math.exp(-ev.deltaY/300),pane,ev.clientX-pane.getBoundingClientRect().left)},{passive:false});
 pane.addEventListener('scroll',()=>panes.forEach(p=>{if(p!==pane&&Math.abs(p.scrollLeft-pane.scrollLeft)>1)p.scrollLeft=pane.scrollLeft}));
 pane.addEventListener('pointermove',ev=>{
  const e=ev.target.closest('[data-t]');
  if(!e){tip.hidden=true;follow.textContent='';return}
  tip.textContent=e.dataset.t.replace(/; /g,'\n');tip.hidden=false;
  const w=tip.offsetWidth,h=tip.offsetHeight;
  tip.style.left=(ev.clientX+16+w>innerWidth?ev.clientX-16-w:ev.clientX+16)+'px';
  tip.style.top=Math.max(6,Math.min(ev.clientY-h-12,innerHeight-h-6))+'px';
  const m=e.dataset.m;
  const rule=m===undefined?'':`.scroll rect[data-m]:not([data-m="${m}"]),.scroll rect[data-m]:not([data-m="${m}"])+text{opacity:.25}`;
  if(follow.textContent!==rule)follow.textContent=rule});
 pane.addEventListener('pointerleave',()=>{tip.hidden=true;follow.textContent=''})});
addEventListener('resize',layout);addEventListener('afterprint',layout);
addEventListener('beforeprint',()=>{setZoom(1);charts.forEach(svg=>svg.setAttribute('class','z2'))});layout();
)js";

}  // namespace moebius

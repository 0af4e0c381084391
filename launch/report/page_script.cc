// Script of report.html, without network: values under the pointer, light and dark, and the steps of judged
// answers. The page reads the same without it.
#include "launch/report/report.h"

namespace moebius {

const char kPageScript[] = R"js(
const root=document.documentElement,tip=document.getElementById('tip');
root.dataset.theme=matchMedia('(prefers-color-scheme: dark)').matches?'dark':'light';
document.getElementById('theme').onclick=()=>root.dataset.theme=root.dataset.theme=='dark'?'light':'dark';
const text=s=>{const e=document.createElement('span');e.textContent=s;return e.innerHTML};
const show=(html,ev)=>{tip.innerHTML=html;tip.hidden=false;const w=tip.offsetWidth,h=tip.offsetHeight;
 tip.style.left=(ev.clientX+18+w>innerWidth?ev.clientX-18-w:ev.clientX+18)+'px';
 tip.style.top=Math.max(6,Math.min(ev.clientY-h/2,innerHeight-h-6))+'px'};
const number=x=>Math.round(x).toLocaleString('en');
document.querySelectorAll('svg[data-chart]').forEach(svg=>{
 const d=JSON.parse(svg.dataset.chart),g=svg.querySelector('.pointer'),[xl,xr,x0,x1]=d.x,[yb,yt,y0,y1,log]=d.y;
 const X=v=>xl+(v-x0)/(x1-x0)*(xr-xl),Y=v=>yb+(log?Math.log(v/y0)/Math.log(y1/y0):(v-y0)/(y1-y0))*(yt-yb);
 svg.onpointermove=ev=>{
  const box=svg.getBoundingClientRect(),at=x0+((ev.clientX-box.left)/box.width*svg.viewBox.baseVal.width-xl)/(xr-xl)*(x1-x0);
  let near=null;
  const hits=d.s.map(s=>{let a=0,b=s.p.length-1;while(b-a>1){const m=(a+b)>>1;s.p[m][0]<at?a=m:b=m}
   const p=Math.abs(s.p[a][0]-at)<=Math.abs(s.p[b][0]-at)?s.p[a]:s.p[b];
   if(near===null||Math.abs(p[0]-at)<Math.abs(near-at))near=p[0];return{s,p}})
   .filter(h=>Math.abs(X(h.p[0])-X(near))<24);
  if(!hits.length)return;
  g.innerHTML=`<line class="rule" x1="${X(near)}" x2="${X(near)}" y1="${yt}" y2="${yb}"/>`+hits.map(h=>`<circle class="dot ${h.s.c}" r="4" cx="${X(h.p[0])}" cy="${Y(h.p[1])}"/>`).join('');
  show(`step ${number(near)}`+hits.map(h=>`<br><i class="${h.s.c}"></i>${text(h.s.n)}<b>${text(h.p[2])}</b>`).join(''),ev)};
 svg.onpointerleave=()=>{g.innerHTML='';tip.hidden=true}});
document.querySelectorAll('svg[data-heat]').forEach(svg=>{
 const steps=svg.dataset.steps.split(' '),n=+svg.dataset.experts,v=svg.dataset.heat;
 svg.onpointermove=ev=>{const box=svg.getBoundingClientRect();
  const c=Math.min(steps.length-1,Math.max(0,Math.floor((ev.clientX-box.left)/box.width*steps.length)));
  const e=Math.min(n-1,Math.max(0,Math.floor((ev.clientY-box.top)/box.height*n))),i=4*(c*n+e);
  const t=parseInt(v.slice(i,i+4),16)/128;
  show(`step ${number(+steps[c])}, expert ${e}<br>${t.toFixed(2)}× its fair share`,ev)};
 svg.onpointerleave=()=>tip.hidden=true});
document.querySelectorAll('.picker').forEach(bar=>{
 const steps=[...bar.parentElement.querySelectorAll('.step')],range=bar.querySelector('input'),[back,on]=bar.querySelectorAll('button');
 const go=i=>{range.value=i;steps.forEach((s,k)=>s.hidden=k!=i);back.disabled=i==0;on.disabled=i==steps.length-1;
  const name=`step ${number(+steps[i].dataset.step)}`;range.setAttribute('aria-valuetext',name);
  bar.querySelector('output').textContent=`${name} of ${number(+steps[steps.length-1].dataset.step)}`};
 range.oninput=()=>go(+range.value);back.onclick=()=>go(+range.value-1);on.onclick=()=>go(+range.value+1);
 bar.hidden=steps.length<2;go(steps.length-1)});
)js";

}  // namespace moebius

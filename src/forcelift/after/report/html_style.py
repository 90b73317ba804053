"""What the style of the report's page has beside that of all pages."""

from forcelift.pages import STYLE as SHARED

STYLE = (
    SHARED
    + """
:root{--deep:#14243d;--on-deep:#f3f6fb;--soft-deep:#a9bad3;--edge:#2f7d4f;--rest:#e7ebf0;--good-wash:#e6f3ea;
--bad-wash:#fbe9e7;--warn-wash:#fbf3d9;--told-wash:#eceff3;--s1:#3b6fb5;--s2:#2a9d8f;--s3:#8064a2;--s4:#e08a3c;
--s5:#c0392f;--s6:#6b7a8f;--s7:#b9a13b;--s8:#9aa6b5;--s9:#c9d0d9}
@media screen and (prefers-color-scheme:dark){:root{--deep:#0b1424;--rest:#2a323e;--good-wash:#17301f;
--bad-wash:#3a1c1a;
--warn-wash:#33290f;--told-wash:#262d37;--s1:#6aa0e6;--s2:#4fc3b5;--s3:#ab90cf;--s4:#f0a860;--s5:#f0776c;--s6:#93a3b8;
--s7:#d9c25f;--s8:#6c7888;--s9:#3b4553}}
html{-webkit-text-size-adjust:100%}
main{max-width:1120px;padding:0 0 64px}
main>section,main>footer,main>.alarms,main>.tiles{margin-left:28px;margin-right:28px}
header.top{background:var(--deep);color:var(--on-deep);padding:40px 44px 36px;border-radius:0 0 14px 14px;
border-bottom:5px solid var(--edge)}
header.top.warn{--edge:#d8a018}header.top.bad{--edge:#d04437}
header.top .eyebrow{font-size:13px;letter-spacing:.08em;text-transform:uppercase;color:var(--soft-deep);margin:0 0 6px}
:lang(th) header.top .eyebrow{letter-spacing:0}
header.top h1{font-size:34px;line-height:1.2;font-weight:680;margin:0;overflow-wrap:anywhere}
header.top .headline{font-size:19px;line-height:1.5;margin:18px 0 0;max-width:46em}
header.top .about{display:flex;flex-wrap:wrap;gap:6px 26px;margin:20px 0 0;font-size:14px;color:var(--soft-deep)}
header.top .about b{color:var(--on-deep);font-weight:600;overflow-wrap:anywhere}
.title{display:flex;flex-wrap:wrap;justify-content:space-between;gap:14px;align-items:center}
.pill{display:inline-flex;align-items:center;gap:9px;padding:8px 16px 8px 11px;border-radius:999px;font-size:16px;
font-weight:700;background:#fff;white-space:nowrap}
.pill.good{color:#1f6b3d}.pill.warn{color:#7a5c00}.pill.bad{color:#b02a20}
.pill .sign{width:22px;height:22px}
.sign{display:inline-block;width:16px;height:16px;flex:none;vertical-align:-3px}
.sign circle{fill:currentColor}.sign path{fill:none;stroke:var(--card);stroke-width:1.8;stroke-linecap:round;
stroke-linejoin:round}
.pill .sign path{stroke:#fff}
.sign.good{color:var(--good)}.sign.bad{color:var(--bad)}.sign.warn{color:var(--drop)}.sign.told{color:var(--s8)}
.pill .sign{color:inherit}
.alarms{margin-top:22px}.alarms+header.top{border-radius:14px}
.alarm{background:var(--bad);color:#fff;border-radius:10px;padding:16px 20px;margin:0 0 12px;font-size:16px}
.alarm b{display:block;font-size:18px}
.alarm code{color:inherit;background:rgba(255,255,255,.18);padding:1px 5px;border-radius:4px}
@media screen and (prefers-color-scheme:dark){.alarm{background:#8f2018}}
.tiles{grid-template-columns:repeat(3,1fr);margin-top:26px;margin-bottom:0}
.tile{padding:16px 18px;border-radius:10px;color:var(--soft);font-size:13.5px}
.tile b{font-size:25px;color:var(--ink);letter-spacing:-.015em;overflow-wrap:anywhere}
.tile b.long{font-size:18px;line-height:1.67}
section>h2{font-size:21px;margin:46px 0 14px;padding-bottom:8px;border-bottom:1px solid var(--line)}
h3{font-size:15px;margin:0 0 12px}
.card.below{margin-top:16px}.card.above{margin-bottom:16px}
.card{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:18px 20px;min-width:0}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(380px,1fr));gap:16px;margin-top:16px}
.scroll{border-radius:10px}
.scroll:focus-visible{outline:3px solid var(--bar);outline-offset:2px}
table{font-size:14.5px}
tbody th,tfoot th{font-weight:600;min-width:12em;max-width:22em;overflow-wrap:anywhere}
tr.total td,tr.total th{font-weight:700;border-top:2px solid var(--soft)}
td.n,th.n{font-variant-numeric:tabular-nums}
td.bar{min-width:150px;vertical-align:middle}
.verdict{display:inline-flex;gap:7px;align-items:center;font-weight:650;white-space:nowrap}
.verdict.good{color:var(--good)}.verdict.bad{color:var(--bad)}.verdict.warn{color:var(--drop)}
.verdict.told{color:var(--soft)}
.under{color:var(--soft);font-size:13.5px;margin:10px 2px 0}
svg.stacked{display:block;width:100%;height:18px;border-radius:4px;overflow:hidden}
svg.stacked.thin{height:9px}
rect.rest{fill:var(--rest)}rect.good{fill:var(--good)}rect.bad{fill:var(--bad)}rect.drop{fill:var(--drop)}
rect.warn{fill:var(--s4)}rect.told{fill:var(--s8)}rect.copy{fill:var(--s3)}rect.bar{fill:var(--bar)}
.step_source{fill:var(--s1)}.step_cleaning{fill:var(--s2)}.step_network{fill:var(--s3)}.step_org{fill:var(--s4)}
.step_quota{fill:var(--s5)}.step_ledger{fill:var(--s6)}.step_held{fill:var(--s7)}.step_stopped{fill:var(--s8)}
.step_other{fill:var(--s9)}
.key{display:inline-block;width:11px;height:11px;margin-right:8px;vertical-align:0}
.key rect{rx:3px}
.lines{display:grid;grid-template-columns:minmax(0,max-content) 1fr max-content;gap:9px 14px;align-items:center;
font-size:14px;margin:0}
.lines code{font-size:12.5px}
.lines .n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.issue{display:grid;grid-template-columns:44px 1fr;gap:4px 14px;margin-bottom:14px}
.issue .number{grid-row:span 2;width:34px;height:34px;border-radius:50%;background:var(--wash);color:var(--soft);
display:grid;place-items:center;font-weight:700}
.issue h3{font-size:16px;line-height:1.5;margin:3px 0 6px;font-weight:600}
.issue h3 b{font-variant-numeric:tabular-nums}
.issue dl{display:grid;grid-template-columns:max-content 1fr;gap:5px 18px;margin:0;font-size:14.5px}
.issue dt{color:var(--soft)}.issue dd{margin:0;overflow-wrap:anywhere;text-align:left}
.plot{display:grid;grid-template-columns:46px 1fr;grid-template-rows:190px auto;gap:6px 8px}
.plot .scale{position:relative;font-size:12px;color:var(--soft);font-variant-numeric:tabular-nums}
.plot .scale span{position:absolute;right:0;transform:translateY(50%)}
.plot .field{position:relative}
.plot svg{display:block;width:100%;height:100%;overflow:visible}
.plot .edges{grid-column:2;display:flex;justify-content:space-between;font-size:12px;color:var(--soft);
font-variant-numeric:tabular-nums}
.plot .named{position:absolute;right:4px;margin-bottom:3px;font-size:12px;font-weight:600;color:var(--ink);
background:var(--card);padding:0 5px;border-radius:4px}
line.grid{stroke:var(--line);stroke-width:1;vector-effect:non-scaling-stroke}
line.mark{stroke:var(--ink);stroke-width:1.5;stroke-dasharray:5 4;vector-effect:non-scaling-stroke}
path.fill{opacity:.22}path.stroke{fill:none;stroke-width:2;vector-effect:non-scaling-stroke;stroke-linejoin:round}
path.fill.done{fill:var(--good)}path.stroke.done{stroke:var(--good)}
path.fill.rate{fill:var(--bar);opacity:.3}path.stroke.rate{stroke:var(--bar);stroke-width:1.5}
table.signing td{height:58px;vertical-align:middle}
table.signing td.line{min-width:190px}
table.signing .stale{color:var(--bad);font-weight:650}
.bottleneck{display:flex;gap:12px;align-items:baseline;margin:0 0 12px;font-size:16px}
.bottleneck b{font-size:18px}
table.full{font-size:13px}table.full td,table.full th{padding:6px 10px}
footer{border-top:1px solid var(--line);padding-top:14px;overflow-wrap:anywhere}
@media (max-width:640px){.tiles{grid-template-columns:repeat(2,1fr)}
header.top{padding:26px 22px}header.top h1{font-size:26px}
main>section,main>footer,main>.alarms,main>.tiles{margin-left:14px;margin-right:14px}
.pair{grid-template-columns:1fr}.issue{grid-template-columns:1fr}.issue .number{grid-row:auto}
.issue dl{grid-template-columns:1fr;gap:0}.issue dd{margin-bottom:6px}}
@media print{:root{color-scheme:light}@page{size:A4;margin:14mm}
*{-webkit-print-color-adjust:exact;print-color-adjust:exact}
body{font-size:12px}main{max-width:none;padding:0}
main>section,main>footer,main>.alarms,main>.tiles{margin-left:0;margin-right:0}
header.top{border-radius:10px;padding:26px 30px}section>h2{margin-top:26px;break-after:avoid}
.card,.issue,.plot,tr,.tile{break-inside:avoid}thead{display:table-header-group}.scroll{overflow:visible}
.tiles{grid-template-columns:repeat(3,1fr)}.pair{grid-template-columns:1fr 1fr}.plot{grid-template-rows:130px auto}}
"""
)

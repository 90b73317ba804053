"""The style that our pages share: light and dark as the reader's system has it, and for paper."""

STYLE = """
:root{color-scheme:light dark;--paper:#f6f7f9;--card:#fff;--ink:#1b2330;--soft:#5b6675;--line:#dfe3e9;--bar:#3b6fb5;
--bad:#c0392f;--drop:#b7791f;--warn:#8a6d00;--good:#2f7d4f;--told:#5b6675;--wash:#eef1f5}
@media screen and (prefers-color-scheme:dark){:root{--paper:#12161c;--card:#1a2029;--ink:#e7ebf1;--soft:#9aa6b5;
--line:#2c3542;
--bar:#6aa0e6;--bad:#f0776c;--drop:#e0a94a;--warn:#d9bd4f;--good:#62bd88;--told:#9aa6b5;--wash:#232b36}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI","Noto Sans",
"Noto Sans Thai","Leelawadee UI",Thonburi,"Loma",sans-serif}
main{max-width:1180px;margin:0 auto;padding:28px 20px 60px}
h1{font-size:24px;line-height:1.25;margin:0 0 4px}
h2{font-size:19px;margin:44px 0 2px}
h3{font-size:15px;margin:26px 0 10px}
p{margin:4px 0}
.soft{color:var(--soft)}
code{font:13px/1.4 ui-monospace,SFMono-Regular,Menlo,Consolas,"Noto Sans Mono",monospace;overflow-wrap:anywhere}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin:22px 0 8px}
.tile{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:12px 14px}
.tile b{display:block;font-size:24px;line-height:1.2;font-weight:650;font-variant-numeric:tabular-nums}
.tile.bad b{color:var(--bad)}.tile.drop b{color:var(--drop)}.tile.good b{color:var(--good)}
.note{border-left:4px solid var(--drop);background:var(--card);padding:8px 12px;margin:10px 0;border-radius:0 6px 6px 0}
.shares{display:flex;height:14px;gap:2px;margin:12px 0 6px}
.shares span{min-width:4px;border-radius:3px}
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;font-size:13px;color:var(--soft)}
.legend b{color:var(--ink);font-variant-numeric:tabular-nums}
.legend i{display:inline-block;width:10px;height:10px;border-radius:3px;margin-right:6px}
.shares .sent,.legend .sent{background:var(--good)}.shares .bad,.legend .bad{background:var(--bad)}
.shares .drop,.legend .drop{background:var(--drop)}.shares .half,.legend .half{background:var(--warn)}
.scroll{overflow-x:auto;background:var(--card);border:1px solid var(--line);border-radius:8px}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;vertical-align:top;padding:9px 12px;border-top:1px solid var(--line)}
thead th{border-top:0;font-size:12px;font-weight:600;color:var(--soft);background:var(--wash);white-space:nowrap}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.word{font-size:12px;font-weight:650;white-space:nowrap}
.word.bad{color:var(--bad)}.word.drop{color:var(--drop)}.word.warn{color:var(--warn)}.word.told{color:var(--told)}
.word.done{color:var(--soft);font-weight:500}
.keys{display:block;margin-top:3px;font-size:13px;color:var(--soft);overflow-wrap:anywhere}
footer{margin-top:48px;font-size:13px;color:var(--soft)}
@media print{body{background:#fff}.tile,tr{break-inside:avoid}}
"""

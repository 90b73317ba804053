"""What the style of the profile's page has beside that of all pages: columns and their plots."""

from forcelift.pages import STYLE as SHARED

STYLE = (
    SHARED
    + """
.facts{color:var(--soft);font-size:13px}
td.name code{white-space:nowrap}
td.what{min-width:260px}td.do{min-width:240px}
.columns{display:grid;grid-template-columns:repeat(auto-fill,minmax(330px,1fr));gap:14px}
.column{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:13px 15px;min-width:0}
.column header{display:flex;justify-content:space-between;gap:10px;align-items:baseline}
.column header b{overflow-wrap:anywhere}
.column header span{font-size:12px;color:var(--soft);text-align:right}
dl{display:grid;grid-template-columns:auto 1fr;gap:1px 12px;margin:9px 0 4px;font-size:13px}
dt{color:var(--soft)}
dd{margin:0;text-align:right;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
figure{margin:12px 0 0}
figcaption{font-size:12px;color:var(--soft);margin-bottom:4px}
svg{display:block;width:100%;height:72px;overflow:visible}
rect.bar{fill:var(--bar)}rect.over{fill:var(--bad)}
line.axis{stroke:var(--line);stroke-width:1;vector-effect:non-scaling-stroke}
.edges{display:flex;min-width:64px;justify-content:space-between;gap:10px;font-size:12px;color:var(--soft);
font-variant-numeric:tabular-nums}
.top{margin:10px 0 0;padding:0;list-style:none;font-size:13px}
.top li{display:grid;grid-template-columns:1fr auto;gap:10px;position:relative;padding:1px 6px;border-radius:4px}
.top li i{position:absolute;inset:1px auto 1px 0;background:var(--wash);border-radius:4px;z-index:0}
.top li span{position:relative;overflow:hidden;text-overflow:ellipsis;white-space:nowrap}
@media print{.column{break-inside:avoid}}
"""
)

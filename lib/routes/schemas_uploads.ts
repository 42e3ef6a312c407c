import * as z from "zod";
import { CATEGORIES } from "../core/file_types.ts";
import { BEGINS_TWICE, beginsOnce, keyedPage } from "./keyed_pages.ts";
import { oneOf, uuid } from "./schemas.ts";

export const ListUploadsQuery = z
  .object({
    ...keyedPage,
    status: oneOf(["pending", "uploaded"]).optional(),
    category: oneOf(CATEGORIES).optional(),
    context_id: uuid.optional(),
  })
  .refine(beginsOnce, BEGINS_TWICE);

export const WorkflowUploadsQuery = z.object(keyedPage).refine(beginsOnce, BEGINS_TWICE);
